"""What a machine runs and sees: mounts, processes, units, listeners, logins. Read from the kernel and from systemd."""
