"""What tasks and trees are, and which event follows which command. Pure: no clock, no chance, no input or output."""
