"""Will this departure be late? One nightly job over the flights that left New York in 2013."""
