"""Pure: columns of PVs, drafts and their rules, pages, search. No clock, socket or loop."""
