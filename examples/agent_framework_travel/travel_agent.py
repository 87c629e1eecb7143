"""TravelPlanner: an agent with two tools, and the model behind it.

A scripted model answers offline. With OPENAI_API_KEY or OPENAI_BASE_URL any OpenAI-compatible one does (OPENAI_MODEL
names it); that needs: pip install agent-framework-openai
"""

import os
from typing import Annotated, Any

from agent_framework import Agent
from scripted_model import ScriptedChatClient

NAME = "TravelPlanner"
INSTRUCTIONS = """You plan trips, day by day. First ask your tools for the weather and for the events at the place,
then write the plan: for each day a heading, what to see, and what to take along for the weather."""

WEATHER = {
    "tokyo": "18 °C, sunny, a light wind in the evening",
    "paris": "14 °C, showers before noon",
    "oslo": "3 °C, snow, clear nights",
}
EVENTS = {
    "tokyo": ["lantern festival in Asakusa", "night market at Tsukiji", "jazz in Shinjuku"],
    "paris": ["open studios in Belleville", "organ concert at Saint-Sulpice"],
    "oslo": ["ski jumping at Holmenkollen", "sauna night at the harbour"],
}


def get_weather(place: Annotated[str, "A city"]) -> str:
    """The weather forecast for a city."""
    return f"{place}: {WEATHER.get(place.lower(), '20 °C, changeable')}"


def get_events(place: Annotated[str, "A city"]) -> str:
    """What is on in a city."""
    return f"{place}: " + "; ".join(EVENTS.get(place.lower(), ["a farmers' market", "free entry to the museums"]))


def chat_client() -> Any:
    api_key, base_url = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    if not api_key and not base_url:
        return ScriptedChatClient(pace_s=float(os.environ.get("TRAVEL_PACE_S", "0.04")))
    from agent_framework.openai import OpenAIChatCompletionClient

    model = os.environ.get("OPENAI_MODEL") or "gpt-4.1-mini"
    return OpenAIChatCompletionClient(model=model, api_key=api_key or "not-needed", base_url=base_url)


def travel_agent() -> Agent:
    return Agent(client=chat_client(), name=NAME, instructions=INSTRUCTIONS, tools=[get_weather, get_events])
