meterprint llm audit responses.jsonl
