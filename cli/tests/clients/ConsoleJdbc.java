import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/** The admin console through pgjdbc, by both protocols. Connects as PGHOST ... say. */
public class ConsoleJdbc {
    public static void main(String[] arguments) throws Exception {
        for (String mode : new String[] {"simple", "extended"}) {
            Properties properties = new Properties();
            properties.put("user", System.getenv("PGUSER"));
            properties.put("password", System.getenv("PGPASSWORD"));
            properties.put("sslmode", System.getenv("PGSSLMODE"));
            properties.put("sslrootcert", System.getenv("PGSSLROOTCERT"));
            properties.put("preferQueryMode", mode);
            properties.put("prepareThreshold", "2");
            String url = "jdbc:postgresql://%s:%s/%s".formatted(
                    System.getenv("PGHOST"), System.getenv("PGPORT"), System.getenv("PGDATABASE"));
            try (Connection conn = DriverManager.getConnection(url, properties); Statement statement = conn.createStatement()) {
                // From the third time on as a prepared statement with binary results.
                for (int n = 0; n < 4; n++) {
                    try (ResultSet rows = statement.executeQuery("SHOW CLIENTS")) {
                        rows.next();
                        show(mode, rows.getString("database") + " " + (rows.getLong("id") > 0) + " " + rows.getInt("port") / 100000);
                    }
                }
                conn.setAutoCommit(false);
                conn.setReadOnly(true);
                statement.setFetchSize(2);
                try (ResultSet rows = statement.executeQuery("SHOW STATE")) {
                    int count = 0;
                    while (rows.next()) {
                        count++;
                    }
                    show("by portions", count);
                }
                conn.commit();
                conn.setAutoCommit(true);
                show("isolation", conn.getTransactionIsolation());
                try {
                    statement.executeQuery("SELECT * FROM pg_class");
                } catch (SQLException error) {
                    show("no SQL", error.getSQLState());
                }
                show("still valid", conn.isValid(5));
            }
        }
    }

    private static void show(String step, Object value) {
        System.out.println(step + ": " + value);
    }
}
