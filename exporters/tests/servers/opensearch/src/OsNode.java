import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.codelibs.opensearch.runner.node.OpenSearchRunnerNode;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.unit.TimeValue;
import org.opensearch.env.Environment;
import org.opensearch.index.mapper.MapperExtrasPlugin;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/** Usage: OsNode DATA_DIR HTTP_PORT [setting=value ...]; prints "ready" when HTTP answers and the shards are there. */
public class OsNode {
    public static void main(String[] a) throws Exception {
        Path data = Path.of(a[0]).toAbsolutePath();
        int port = Integer.parseInt(a[1]);
        Path config = Files.createDirectories(data.resolve("config"));
        Settings.Builder s = Settings.builder()
            .put("path.home", data.toString())
            .put("path.data", data.resolve("data").toString())
            .put("path.logs", data.resolve("logs").toString())
            .put("network.host", "127.0.0.1")
            .put("http.port", port)
            .put("transport.port", port + 100)
            .put("cluster.name", "test")
            .put("node.name", "test-1")
            .put("discovery.type", "single-node")
            .put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (int i = 2; i < a.length; i++) {
            int eq = a[i].indexOf('=');
            s.put(a[i].substring(0, eq), a[i].substring(eq + 1));
        }
        LogConfigurator.setNodeName("test-1");
        LogConfigurator.registerErrorListener();
        Environment env = InternalSettingsPreparer.prepareEnvironment(s.build(), Map.of(), config, () -> "test-1");
        Node node = new OpenSearchRunnerNode(env, List.of(Netty4Plugin.class, MapperExtrasPlugin.class));
        CountDownLatch stopped = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception e) {
                e.printStackTrace();
            }
            stopped.countDown();
        }));
        node.start();
        node.client().admin().cluster().prepareHealth()
            .setWaitForYellowStatus().setWaitForNoInitializingShards(true)
            .setTimeout(TimeValue.timeValueSeconds(60)).get();
        System.out.println("ready");
        System.out.flush();
        stopped.await();
    }
}
