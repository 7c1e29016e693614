"""From messages to tables and text. Pure: nothing here writes anywhere."""
