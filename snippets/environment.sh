export METERING_API_URL=http://127.0.0.1:4141
export METERING_API_KEY=local
