meterprint new orders_api --from api_gateway
