"""A real store behind a connection that breaks: before a write arrives, or before its answer comes back."""

from hitl_nb.errors import StorageFailed


class Flaky:
    """Fails the next ``fails`` writes; with ``late`` they are stored, and only the answer is lost."""

    def __init__(self, store):
        self.store, self.fails, self.late, self.error = store, 0, False, StorageFailed(reason="no connection")

    def __getattr__(self, name):
        return getattr(self.store, name)

    def write(self, *work, **options):
        if self.fails:
            self.fails -= 1
            if self.late:
                self.store.write(*work, **options)
            raise self.error
        return self.store.write(*work, **options)
