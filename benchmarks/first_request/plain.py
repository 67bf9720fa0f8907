"""A process of SQLAlchemy alone."""

import time

CPU, CLOCK = time.process_time(), time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402

from sqlalchemy import Text, create_engine, select  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker  # noqa: E402


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)


maker = sessionmaker(create_engine(sys.argv[1]))
with maker() as session:
    found = session.scalars(select(Note.user_id)).all()
    session.commit()
print(json.dumps([time.process_time() - CPU, time.perf_counter() - CLOCK, found]))
