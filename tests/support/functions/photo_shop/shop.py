"""Photo shop with functiond."""

import json
from typing import Any

import darkroom
from functiond import App, Group, group

app = App()


@app.function()
def import_orders(page: int) -> None:
    orders, more = darkroom.page_of_orders(page)
    process_order.enqueue_many(process_order.event(order) for order in orders)
    if more:
        import_orders.enqueue(page + 1)


@app.function()
def process_order(order: dict[str, Any]) -> None:
    prints = [develop.event(photo) for photo in order["photos"]]
    group(prints).then(bind_album, order=order["id"]).enqueue()


@app.function(retries=3)
def develop(photo: str) -> str:
    return darkroom.print_photo(photo)


@app.function(on_failure="report_damage")
def bind_album(prints: Group, order: str) -> None:
    darkroom.save("albums", order, [print.result for print in prints.members()])
    notify.options(expires=3600).enqueue(order, f"{prints.counts['total']} prints are ready")


@app.function()
def report_damage(outcome: dict[str, Any]) -> None:
    order = json.loads(outcome["request_payload"])["kwargs"]["order"]
    darkroom.save("damages", order, f"order {order} cannot be bound")


@app.function()
def notify(order: str, text: str) -> None:
    darkroom.save("letters", order, text)
    remind.options(delay=1, priority=3).enqueue(order)


@app.function()
def remind(order: str) -> None:
    darkroom.save("reminders", order, f"please fetch order {order}")


@app.function(schedule="*/2 * * * * *")
def bill_customers() -> None:
    for customer in darkroom.customers_without_bill():
        sum_up.event(customer).then(add_tax, rate=0.19).then(send_bill, customer).enqueue()


@app.function()
def sum_up(customer: str) -> int:
    return darkroom.cents_of(customer)


@app.function()
def add_tax(cents: int, rate: float) -> int:
    return round(cents * (1 + rate))


@app.function()
def send_bill(cents: int, customer: str) -> None:
    darkroom.save("bills", customer, f"{cents / 100:.2f} EUR")


@app.function()
def appraise(thing: str) -> int:
    return 100 * len(thing)
