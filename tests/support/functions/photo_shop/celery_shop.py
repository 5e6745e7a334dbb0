"""Photo shop with Celery."""

from typing import Any

import darkroom
from celery import Celery, chain, chord

app = Celery("shop", config_source="celeryconfig")
app.conf.beat_schedule = {"bills": {"task": "celery_shop.bill_customers", "schedule": 2.0}}


@app.task
def import_orders(page: int) -> None:
    orders, more = darkroom.page_of_orders(page)
    for order in orders:
        process_order.delay(order)
    if more:
        import_orders.delay(page + 1)


@app.task
def process_order(order: dict[str, Any]) -> None:
    prints = [develop.s(photo) for photo in order["photos"]]
    chord(prints)(bind_album.s(order=order["id"]).on_error(report_damage.s(order["id"])))


@app.task(autoretry_for=(darkroom.Jammed,), max_retries=3, default_retry_delay=1)
def develop(photo: str) -> str:
    return darkroom.print_photo(photo)


@app.task
def bind_album(prints: list[str], order: str) -> None:
    darkroom.save("albums", order, prints)
    notify.apply_async((order, f"{len(prints)} prints are ready"), expires=3600)


@app.task
def report_damage(request: Any, error: Exception, traceback: Any, order: str) -> None:
    darkroom.save("damages", order, f"order {order} cannot be bound")


@app.task
def notify(order: str, text: str) -> None:
    darkroom.save("letters", order, text)
    remind.apply_async((order,), countdown=1, priority=3)


@app.task
def remind(order: str) -> None:
    darkroom.save("reminders", order, f"please fetch order {order}")


@app.task
def bill_customers() -> None:
    for customer in darkroom.customers_without_bill():
        chain(sum_up.s(customer), add_tax.s(rate=0.19), send_bill.s(customer)).delay()


@app.task
def sum_up(customer: str) -> int:
    return darkroom.cents_of(customer)


@app.task
def add_tax(cents: int, rate: float) -> int:
    return round(cents * (1 + rate))


@app.task
def send_bill(cents: int, customer: str) -> None:
    darkroom.save("bills", customer, f"{cents / 100:.2f} EUR")


@app.task
def appraise(thing: str) -> int:
    return 100 * len(thing)
