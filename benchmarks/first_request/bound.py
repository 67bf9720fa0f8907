"""A process of sqla_rls."""

import time

CPU, CLOCK = time.process_time(), time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402

from sqlalchemy import Text, create_engine, select  # noqa: E402
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker  # noqa: E402

from sqla_rls import (  # noqa: E402
    Caller,
    auth_uid,
    authenticated,
    crud_policy,
    enforce_row_security,
    identify,
)


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    __table_args__ = (crud_policy(authenticated, read=auth_uid("user_id"), modify=False),)

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)


maker = sessionmaker(create_engine(sys.argv[1]))
enforce_row_security(maker)
with maker() as session:
    identify(session, Caller(role="authenticated", subject=sys.argv[2]))
    found = session.scalars(select(Note.user_id)).all()
    session.commit()
print(json.dumps([time.process_time() - CPU, time.perf_counter() - CLOCK, found]))
