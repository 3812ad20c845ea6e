"""Meter a chain of LangChain with a callback."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter
from meterprint.blueprints.llm.langchain import LangChainCallback

with Recorder.from_env() as recorder:
    metering = LangChainCallback(LLMMeter(recorder, customer_id="cus_ada"))
    prompt = ChatPromptTemplate([("system", "Answer a child in one sentence."), ("user", "{question}")])
    chain = prompt | ChatOpenAI(model="gpt-5.4-mini") | StrOutputParser()
    print(chain.invoke({"question": "Why is the sky blue?"}, {"callbacks": [metering]}))
    #> This is the stand-in's answer to: Why is the sky blue?
