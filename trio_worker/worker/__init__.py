"""Claims jobs, sends their mails, decides what becomes of each, settles it, and stops in order."""
