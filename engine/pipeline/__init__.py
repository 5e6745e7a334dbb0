"""The way of an invocation: intake, dispatcher, delivery, redrive."""
