"""The log told to readers: tasks, snapshots and streams as A2A shows them. Changes nothing."""
