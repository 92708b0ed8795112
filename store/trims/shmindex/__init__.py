"""Who is resident: one shared file with one writer, readable by anyone without asking."""
