-- oldest-code: 8
-- What is placed waits in a list beside the index of words, and whoever fills it sorts it in, while the others wait. With the
-- default of 4 MiB that took some thousand orders at once, and was seen in how long lists took beside them.

ALTER INDEX orders_search_idx SET (gin_pending_list_limit = 128);  -- kB
