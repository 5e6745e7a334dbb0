"""What can be invoked: functions, their versions and aliases, and what each may be."""
