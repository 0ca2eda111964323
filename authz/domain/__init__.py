"""Who may call whom: values and rules. Pure: no clock, no loop, no files, no wire."""
