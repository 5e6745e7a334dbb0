"""Pipeline of an invocation: intake, dispatcher, delivery, redrive."""
