"""Takes jobs, has their mails go, decides and settles; stops in order."""
