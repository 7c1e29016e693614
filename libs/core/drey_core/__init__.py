"""The pure part of Drey: values, pages, tolerance, compare, time and errors.

Nothing here opens a socket, reads a clock, starts a task or logs. Time is an argument.
"""
