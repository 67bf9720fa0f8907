# access: false failures
from sqlalchemy import *
from sqlalchemy.orm import *
from sqla_rls import *
from sqla_rls.testing.access import Access
import pytest
from uuid import UUID, uuid4
