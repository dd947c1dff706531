import java.util.Map;
import org.eclipse.edc.protocol.spi.DefaultParticipantIdExtractionFunction;
import org.eclipse.edc.runtime.metamodel.annotation.Provider;
import org.eclipse.edc.spi.iam.AudienceResolver;
import org.eclipse.edc.spi.iam.ClaimToken;
import org.eclipse.edc.spi.iam.IdentityService;
import org.eclipse.edc.spi.iam.TokenParameters;
import org.eclipse.edc.spi.iam.TokenRepresentation;
import org.eclipse.edc.spi.iam.VerificationContext;
import org.eclipse.edc.spi.result.Result;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;

/**
 * Identity by a table that both sides hold, for closed networks: one bearer token goes out, and one
 * that comes in names one participant.
 */
public class StaticIdentity implements ServiceExtension, IdentityService {
    private static final String CLAIM = "client_id";
    private static final String SCHEME = "Bearer ";

    private String ownToken;
    private Map<String, String> participants; // by the token that they send

    @Provider
    public IdentityService identityService(ServiceExtensionContext context) {
        var config = context.getConfig("interop.identity");
        ownToken = config.getString("own.token");
        participants = Map.of(config.getString("peer.token"), config.getString("peer.id"));
        return this;
    }

    @Provider
    public AudienceResolver audienceResolver() {
        return message -> Result.success(message.getCounterPartyAddress());
    }

    @Provider
    public DefaultParticipantIdExtractionFunction participantId() {
        return claims -> claims.getStringClaim(CLAIM);
    }

    @Override
    public Result<TokenRepresentation> obtainClientCredentials(
            String participantContextId, TokenParameters parameters) {
        return Result.success(
                TokenRepresentation.Builder.newInstance().token(SCHEME + ownToken).build());
    }

    @Override
    public Result<ClaimToken> verifyJwtToken(
            String participantContextId, TokenRepresentation token, VerificationContext context) {
        var header = token.getToken();
        var participant =
                header.startsWith(SCHEME)
                        ? participants.get(header.substring(SCHEME.length()))
                        : null;
        return participant == null
                ? Result.failure("no participant has this token")
                : Result.success(
                        ClaimToken.Builder.newInstance().claim(CLAIM, participant).build());
    }
}
