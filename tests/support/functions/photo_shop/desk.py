"""Front desk of the photo shop with functiond."""

import darkroom
from functiond import group
from shop import appraise, import_orders, remind

import_orders.enqueue(1)
remind.options(delay=3600).enqueue("99").cancel()
values = list(group(appraise.event(thing) for thing in darkroom.ESTATE).enqueue().results())
darkroom.save("desk", "values", values)
