"""What runs an attempt's code: functions, threads, processes, and what they are given. Decides nothing about tasks."""
