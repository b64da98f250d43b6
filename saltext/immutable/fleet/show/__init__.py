"""What the commands of ``fleet.*`` return: data for programs (JSON), and tables for a terminal.

The runner ``fleet.*`` calls it, on the master. It reads the store and the providers' lists, and changes nothing. The
rest of the library must never import it.
"""
