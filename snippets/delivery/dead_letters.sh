meterprint dead-letters list --spool usage
meterprint dead-letters show order-7 --spool usage
meterprint dead-letters resend --spool usage
