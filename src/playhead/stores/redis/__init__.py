from playhead.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
