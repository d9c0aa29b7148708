-- oldest-code: 12
-- That a refund has failed after all stands in the history of its order (`refund_failed`), which code that does not know of it cannot
-- read. Nothing else is another than before, and there has to be a statement.

SELECT 1;
