"""AG2, by its runtime logging."""

from __future__ import annotations

import autogen


def enable(mlflow, stub):
    mlflow.ag2.autolog()


def _pair(stub):
    config = {
        "model": "gpt-4o-mini",
        "base_url": f"{stub}/v1",
        "api_key": "stub",
        "max_retries": 0,
        "cache_seed": None,
    }
    assistant = autogen.AssistantAgent(
        "assistant", llm_config={"config_list": [config], "cache_seed": None}
    )
    user = autogen.UserProxyAgent(
        "user",
        human_input_mode="NEVER",
        code_execution_config=False,
        max_consecutive_auto_reply=0,
    )
    return user, assistant


def chat(mlflow, stub):
    user, assistant = _pair(stub)
    user.initiate_chat(assistant, message="Hello ☃", max_turns=1, silent=True)


def longer_chat(mlflow, stub):
    user, assistant = _pair(stub)
    user.initiate_chat(assistant, message="Hello", max_turns=2, silent=True)
