      ('pg_execute_server_program', 'can run programs as the server'),
      ('pg_write_server_files', 'can write files as the server'),
      ('pg_read_server_files', 'can read files of the server, such as its log and backups'),
      ('pg_read_all_data', 'can read the signing key, and pg_statistic, which has values of every row'),
      ('pg_write_all_data', 'can write the signing key, and the tables that policies read')
