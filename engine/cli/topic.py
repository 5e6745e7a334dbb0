"""``functiond topic``: topics that the engine serves itself (SMN), and the functions that they call."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import App, Parameter

from engine.cli.options import Function
from engine.cli.output import Row, print_done, print_list, print_result
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of
from engine.deploy.services import TOPICS, all_topics, find_topic, topic_path
from engine.model.urn import short_name

Topic = Annotated[str, Parameter(help="Name or URN of the topic.")]

app = App(name="topic", help="List, create and delete topics, publish to them, and subscribe functions.")


@app.command(name="list")
def list_topics(*, target: Target = DEFAULT_TARGET) -> None:
    """List the topics of the project."""
    fields = {"NAME": "name", "DISPLAY NAME": "display_name", "URN": "topic_urn", "CREATED": "create_time"}
    listed = all_topics(target.client())
    print_list(listed, "No topics.", lambda topic: {key: topic[fields[key]] for key in fields}, json=target.json)


@app.command
def create(name: str, /, *, display_name: str = "", target: Target = DEFAULT_TARGET) -> None:
    """Create a topic. An existing topic of this name stays as it is.

    Parameters
    ----------
    name
        Name of the topic.
    display_name
        Name for people.
    """
    body = json.dumps({"name": name, "display_name": display_name}).encode()
    answer = target.client().service().send("POST", TOPICS, body)
    urn, created = answer.json["topic_urn"], answer.status == 201
    result = {"name": name, "topic_urn": urn, "created": created}
    text = f"[bold green]{'created' if created else 'exists:'}[/] topic [bold]{name}[/]"
    print_result(result, text, urn, json=target.json)


@app.command
def update(name: Topic, /, *, display_name: str, target: Target = DEFAULT_TARGET) -> None:
    """Change the display name of a topic.

    Parameters
    ----------
    display_name
        Name for people.
    """
    client = target.client()
    client.service().put(topic_path(find_topic(client, name)), {"display_name": display_name})
    print_done("updated", name, json=target.json, kind="topic")


@app.command
def delete(name: Topic, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a topic. Triggers of functions on it stay, and get no more messages."""
    client = target.client()
    client.service().send("DELETE", topic_path(find_topic(client, name)))
    print_done("deleted", name, json=target.json, kind="topic")


@app.command
def publish(name: Topic, message: str, /, *, subject: str = "", target: Target = DEFAULT_TARGET) -> None:
    """Publish a message. The invocations of the subscribed functions are on disk when the command returns.

    Parameters
    ----------
    message
        Text of the message.
    subject
        Subject of the message.
    """
    client = target.client()
    body = {"message": message, "subject": subject}
    message_id = client.service().post(topic_path(find_topic(client, name), "/publish"), body)["message_id"]
    print_result(
        {"message_id": message_id}, f"[bold green]published[/] to [bold]{name}[/]", message_id, json=target.json
    )


@app.command
def subscribe(name: Topic, function: Function, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Let a function be called for each message of a topic, by an SMN trigger."""
    client = target.client()
    data = {"topic_urn": find_topic(client, name)["topic_urn"]}
    body = {"trigger_type_code": "SMN", "event_data": data, "trigger_status": "ACTIVE"}
    made = client.of_project.post(f"/triggers{path_of(function)}", body)
    text = f"[bold green]subscribed[/] [bold]{short_name(function)}[/] to [bold]{name}[/]"
    print_result(made, text, made["trigger_id"], json=target.json)


@app.command
def subscriptions(name: Topic, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the functions that a topic calls. Delete the trigger of a subscription to end it."""
    client = target.client()
    urn = find_topic(client, name)["topic_urn"]
    triggers = client.of_project.get_all("/triggers", "triggers")
    smn = (trigger for trigger in triggers if trigger["trigger_type_code"] == "SMN")
    listed = [trigger for trigger in smn if trigger["event_data"].get("topic_urn") == urn]
    print_list(listed, "No subscriptions.", _subscription_row, json=target.json)


def _subscription_row(trigger: dict[str, Any]) -> Row:
    function, state = short_name(trigger["func_urn"]), trigger["source"]["state"]
    return {"TRIGGER ID": trigger["trigger_id"], "FUNCTION": function, "STATE": state}
