"""The demo (``make demo``): two enterprises, one directory, one auditor, on this machine.

Every participant is a process of its own with a data folder and keys of its own; everything is
done through the ``connector`` and ``connector-verify`` commands, and through the client library
where many uses run at once. Each step checks what it tells.
"""
