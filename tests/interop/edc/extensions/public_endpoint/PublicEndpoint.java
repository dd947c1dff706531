import jakarta.ws.rs.GET;
import jakarta.ws.rs.HeaderParam;
import jakarta.ws.rs.Path;
import jakarta.ws.rs.container.AsyncResponse;
import jakarta.ws.rs.container.Suspended;
import jakarta.ws.rs.core.Response;
import jakarta.ws.rs.core.StreamingOutput;
import java.security.Key;
import java.security.KeyPairGenerator;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.eclipse.edc.connector.dataplane.spi.Endpoint;
import org.eclipse.edc.connector.dataplane.spi.iam.DataPlaneAuthorizationService;
import org.eclipse.edc.connector.dataplane.spi.iam.PublicEndpointGeneratorService;
import org.eclipse.edc.connector.dataplane.spi.pipeline.PipelineService;
import org.eclipse.edc.connector.dataplane.util.sink.AsyncStreamingDataSink;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.spi.security.Vault;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;
import org.eclipse.edc.spi.types.domain.DataAddress;
import org.eclipse.edc.spi.types.domain.transfer.DataFlowStartMessage;
import org.eclipse.edc.spi.types.domain.transfer.FlowType;
import org.eclipse.edc.web.spi.WebService;
import org.eclipse.edc.web.spi.configuration.PortMapping;
import org.eclipse.edc.web.spi.configuration.PortMappingRegistry;

/**
 * Where HttpData-PULL pulls from. The EDC stopped shipping one after 0.14 and asks for an extension
 * such as this: tokens and their data addresses are the EDC's own, and so is the pipeline that
 * reads the source. It also puts a fresh key pair for those tokens into the vault in memory.
 */
public class PublicEndpoint implements ServiceExtension {
    private static final String CONTEXT = "public";
    private static final String PATH = "/public";

    @Inject private DataPlaneAuthorizationService authorization;
    @Inject private PublicEndpointGeneratorService endpoints;
    @Inject private PipelineService pipeline;
    @Inject private PortMappingRegistry ports;
    @Inject private Vault vault;
    @Inject private WebService web;

    @Override
    public void initialize(ServiceExtensionContext context) {
        var port = context.getConfig().getInteger("interop.public.port");
        ports.register(new PortMapping(CONTEXT, port, PATH));
        var endpoint = Endpoint.url("http://127.0.0.1:%d%s".formatted(port, PATH));
        endpoints.addGeneratorFunction("HttpData", source -> endpoint);
        web.registerResource(CONTEXT, new Pull(authorization, pipeline));
    }

    @Override
    public void start() {
        try {
            var generator = KeyPairGenerator.getInstance("EC");
            generator.initialize(256);
            var pair = generator.generateKeyPair();
            vault.storeSecret("token-private", pem("PRIVATE KEY", pair.getPrivate()));
            vault.storeSecret("token-public", pem("PUBLIC KEY", pair.getPublic()));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String pem(String label, Key key) {
        var body = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(key.getEncoded());
        return "-----BEGIN %1$s-----%n%2$s%n-----END %1$s-----%n".formatted(label, body);
    }

    /** Answers whoever brings a token that this runtime issued and has not revoked. */
    @Path("{any:.*}")
    public static class Pull {
        private final DataPlaneAuthorizationService authorization;
        private final PipelineService pipeline;
        private final ExecutorService threads = Executors.newCachedThreadPool();

        Pull(DataPlaneAuthorizationService authorization, PipelineService pipeline) {
            this.authorization = authorization;
            this.pipeline = pipeline;
        }

        @GET
        public void get(
                @HeaderParam("Authorization") String token, @Suspended AsyncResponse response) {
            if (token == null) {
                response.resume(Response.status(401).build());
                return;
            }
            var source = authorization.authorize(token, Map.of());
            if (source.failed()) {
                response.resume(Response.status(403).entity(source.getFailureDetail()).build());
                return;
            }
            var sink =
                    new AsyncStreamingDataSink(
                            part -> {
                                StreamingOutput body = part.outputStreamConsumer()::accept;
                                return response.resume(
                                        Response.ok(body).type(part.mediaType()).build());
                            },
                            threads);
            pipeline.transfer(flow(source.getContent()), sink)
                    .whenComplete(
                            (result, error) -> {
                                if (error != null || result.failed()) {
                                    response.resume(Response.status(500).build());
                                }
                            });
        }

        private DataFlowStartMessage flow(DataAddress source) {
            return DataFlowStartMessage.Builder.newInstance()
                    .id(UUID.randomUUID().toString())
                    .processId(UUID.randomUUID().toString())
                    .flowType(FlowType.PULL)
                    .sourceDataAddress(source)
                    .destinationDataAddress(
                            DataAddress.Builder.newInstance()
                                    .type(AsyncStreamingDataSink.TYPE)
                                    .build())
                    .properties(Map.of("method", "GET"))
                    .build();
        }
    }
}
