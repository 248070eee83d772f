-- MLflow has a database of its own beside the ledger's: both keep their revision in a table of the
-- same name. Run once, when the server's volume is new.
CREATE DATABASE mlflow;
