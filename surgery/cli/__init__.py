"""The command line.

main        the program: its help, its version, errors and exit statuses
common      what commands share: arguments, opening bases and plans, progress, output
interrupts  Ctrl-C, SIGTERM, a closed terminal
commands    a file for each command
reports     tables for a terminal
"""
