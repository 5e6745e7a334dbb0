"""``functiond topic``: topics that the engine serves itself (SMN), and the functions that they call."""

from __future__ import annotations

import json

from cyclopts import App

from engine.cli.output import Output, print_done, print_json, print_table
from engine.cli.target import DEFAULT_TARGET, Target
from engine.deploy.client import path_of
from engine.deploy.services import TOPICS, all_topics, find_topic, topic_path
from engine.model.urn import short_name

app = App(name="topic", help="List, create and delete topics, publish to them, and subscribe functions.")


@app.command(name="list")
def list_topics(*, target: Target = DEFAULT_TARGET) -> None:
    """List the topics of the project."""
    found = all_topics(target.client())
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No topics.", style="dim")
    else:
        rows = ((one["name"], one["display_name"], one["topic_urn"], one["create_time"]) for one in found)
        print_table(("NAME", "DISPLAY NAME", "URN", "CREATED"), rows)


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
    urn = answer.json["topic_urn"]
    if target.json:
        print_json({"name": name, "topic_urn": urn, "created": answer.status == 201})
    else:
        action = "created" if answer.status == 201 else "exists:"
        Output().print(f"[bold green]{action}[/] topic [bold]{name}[/]")
        Output().paste(urn)


@app.command
def update(name: str, /, *, display_name: str, target: Target = DEFAULT_TARGET) -> None:
    """Change the display name of a topic.

    Parameters
    ----------
    name
        Name or URN of the topic.
    display_name
        Name for people.
    """
    client = target.client()
    client.service().put(topic_path(find_topic(client, name)), {"display_name": display_name})
    print_done("updated", name, json=target.json, kind="topic")


@app.command
def delete(name: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Delete a topic. Triggers of functions on it stay, and get no more messages.

    Parameters
    ----------
    name
        Name or URN of the topic.
    """
    client = target.client()
    client.service().send("DELETE", topic_path(find_topic(client, name)))
    print_done("deleted", name, json=target.json, kind="topic")


@app.command
def publish(name: str, message: str, /, *, subject: str = "", target: Target = DEFAULT_TARGET) -> None:
    """Publish a message. The invocations of the subscribed functions are on disk when the command returns.

    Parameters
    ----------
    name
        Name or URN of the topic.
    message
        Text of the message.
    subject
        Subject of the message.
    """
    client = target.client()
    body = {"message": message, "subject": subject}
    sent = client.service().post(topic_path(find_topic(client, name), "/publish"), body)
    if target.json:
        print_json({"message_id": sent["message_id"]})
    else:
        Output().print(f"[bold green]published[/] to [bold]{name}[/]")
        Output().paste(sent["message_id"])


@app.command
def subscribe(name: str, function: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """Let a function be called for each message of a topic, by an SMN trigger.

    Parameters
    ----------
    name
        Name or URN of the topic.
    function
        Name or URN of the function.
    """
    client = target.client()
    data = {"topic_urn": find_topic(client, name)["topic_urn"]}
    body = {"trigger_type_code": "SMN", "event_data": data, "trigger_status": "ACTIVE"}
    made = client.of_project.post(f"/triggers{path_of(function)}", body)
    if target.json:
        print_json(made)
    else:
        Output().print(f"[bold green]subscribed[/] [bold]{short_name(function)}[/] to [bold]{name}[/]")
        Output().paste(made["trigger_id"])


@app.command
def subscriptions(name: str, /, *, target: Target = DEFAULT_TARGET) -> None:
    """List the functions that a topic calls. Delete the trigger of a subscription to end it.

    Parameters
    ----------
    name
        Name or URN of the topic.
    """
    client = target.client()
    urn = find_topic(client, name)["topic_urn"]
    triggers = client.of_project.get_all("/triggers", "triggers")
    found = [one for one in triggers if one["trigger_type_code"] == "SMN" and one["event_data"].get("topic_urn") == urn]
    if target.json:
        print_json(found)
    elif not found:
        Output().print("No subscriptions.", style="dim")
    else:
        rows = ((one["trigger_id"], short_name(one["func_urn"]), one["source"]["state"]) for one in found)
        print_table(("TRIGGER ID", "FUNCTION", "STATE"), rows)
