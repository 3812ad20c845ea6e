"""The metering API that runs anywhere: under pytest, on a loopback port, in a page."""
