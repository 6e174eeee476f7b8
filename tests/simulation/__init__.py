"""The engine under faults: everything outside of it is simulated from one seed, and a history log is checked."""
