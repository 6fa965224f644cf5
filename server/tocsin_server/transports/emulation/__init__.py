"""`/emulation`: the commands of clients whose connections are HTTP responses."""
