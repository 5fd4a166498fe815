import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import org.postgresql.PGConnection;

/** pgjdbc: every way that it talks to a server, one line of output for each. Connects as PGHOST ... say. */
public class PgJdbc {
    private static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", System.getenv("PGUSER"));
        properties.put("password", System.getenv("PGPASSWORD"));
        properties.put("sslmode", System.getenv("PGSSLMODE"));
        properties.put("sslrootcert", System.getenv("PGSSLROOTCERT"));
        for (int i = 0; i < options.length; i += 2) {
            properties.put(options[i], options[i + 1]);
        }
        String url = "jdbc:postgresql://%s:%s/%s".formatted(
                System.getenv("PGHOST"), System.getenv("PGPORT"), System.getenv("PGDATABASE"));
        return DriverManager.getConnection(url, properties);
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection conn = connect("preferQueryMode", "simple")) {
            show("simple", one(conn, "select 40 + 2"));
        }
        try (Connection conn = connect("prepareThreshold", "2")) {
            show("extended", one(conn, "select 'ü'"));
            prepared(conn);
            errors(conn);
            try (Statement statement = conn.createStatement()) {
                statement.execute("create temp table t (n int primary key, body text)");
            }
            transactions(conn);
            batch(conn);
            fetchSize(conn);
            copy(conn);
            cancel(conn);
            show("after the cancel", one(conn, "select 1"));
        }
    }

    private static void show(String step, Object value) {
        System.out.println(step + ": " + value);
    }

    private static Object one(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getObject(1);
        }
    }

    /** Unnamed at first, a named server-side statement with binary results from the second execution on. */
    private static void prepared(Connection conn) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement("select ?::int * 2")) {
            for (int n = 0; n < 6; n++) {
                statement.setInt(1, n);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    show("prepared", rows.getInt(1));
                }
            }
        }
    }

    private static void errors(Connection conn) {
        for (String sql : new String[] {"select no_such_column from notes", "selec 1", "select 1 / 0"}) {
            try {
                show("error", one(conn, sql));
            } catch (SQLException error) {
                show("error", error.getSQLState());
            }
        }
    }

    private static void transactions(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        try (Statement statement = conn.createStatement()) {
            statement.executeUpdate("insert into t values (1, 'kept')");
            conn.commit();
            statement.executeUpdate("insert into t values (2, 'gone')");
            statement.executeUpdate("insert into t values (1, 'twice')");
        } catch (SQLException error) {
            show("unique violation", error.getSQLState());
            conn.rollback();
        }
        conn.setAutoCommit(true);
        show("transaction", one(conn, "select count(*) from t"));
    }

    private static void batch(Connection conn) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement("insert into t values (?, ?)")) {
            for (int n = 100; n < 1100; n++) {
                statement.setInt(1, n);
                statement.setString(2, "batch");
                statement.addBatch();
            }
            show("batch", statement.executeBatch().length);
        }
    }

    /** Execute with a row limit inside a transaction: suspended and resumed portals. */
    private static void fetchSize(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        long sum = 0;
        try (Statement statement = conn.createStatement()) {
            statement.setFetchSize(13);
            try (ResultSet rows = statement.executeQuery("select n from t order by n")) {
                while (rows.next()) {
                    sum += rows.getInt(1);
                }
            }
        }
        conn.commit();
        conn.setAutoCommit(true);
        show("fetch size", sum);
    }

    private static void copy(Connection conn) throws Exception {
        var copy = conn.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder data = new StringBuilder();
        for (int n = 10_000; n < 15_000; n++) {
            data.append(n).append("\trow\n");
        }
        show("copy in", copy.copyIn("copy t from stdin", new StringReader(data.toString())));
        StringWriter out = new StringWriter();
        show("copy out", copy.copyOut("copy (select * from t order by n) to stdout", out));
        show("copy out length", out.toString().length());
        try {
            copy.copyIn("copy t from stdin", new StringReader("not a number\tx\n"));
        } catch (SQLException error) {
            show("copy error", error.getSQLState());
        }
    }

    private static void cancel(Connection conn) throws Exception {
        try (Statement statement = conn.createStatement()) {
            // pgjdbc's own timer sends a cancel request after a second.
            statement.setQueryTimeout(1);
            statement.execute("select pg_sleep(25)");
            show("cancel", "never came");
        } catch (SQLException error) {
            show("cancel", error.getSQLState());
        }
    }
}
