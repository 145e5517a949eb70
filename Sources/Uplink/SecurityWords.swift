import Glibc
import NIOPosix
import NIOSSL

// What becomes of errors of the network and of TLS on their way to an operator.

extension LinkLoss {
    /// - Parameter name: what the cloud's certificate had to bear.
    init(_ error: any Error, name: String) {
        switch error {
        case let error as LinkLossError:
            self = error.loss
        case let error as NIOConnectionError:
            self = .unreachable(error.words)
        case NIOSSLError.uncleanShutdown:
            // MQTT says itself where its packets end.
            self = .closed
        case NIOSSLError.handshakeFailed(let error):
            self = LinkLoss(error)
        case let error as BoringSSLError:
            self = LinkLoss(error)
        case let error as NIOSSLExtraError where error == .failedToValidateHostname:
            self = .wrongName(expected: name)
        default:
            self = .unreachable("\(error)")
        }
    }

    private init(_ error: BoringSSLError) {
        guard case .sslError(let stack) = error else {
            self = .insecure("\(error)")
            return
        }
        let reasons = stack.map { Self.reason(in: $0.description) }
        self =
            reasons.lazy.compactMap(LinkLoss.init(reason:)).first
            ?? .insecure(reasons.joined(separator: ", "))
    }

    /// BoringSSL's own name for what went wrong: `SSLV3_ALERT_CERTIFICATE_REVOKED` in
    /// `error:10000414:SSL routines:OPENSSL_internal:SSLV3_ALERT_CERTIFICATE_REVOKED at …`.
    private static func reason(in description: String) -> String {
        if description.contains("EOF") { return "EOF" }
        guard let name = description.split(separator: " ").first(where: { $0.contains("OPENSSL_internal:") }),
            let last = name.split(separator: ":").last
        else { return description }
        return String(last)
    }

    /// nil for reasons that have no words of ours.
    private init?(reason: String) {
        switch reason {
        case "CERTIFICATE_VERIFY_FAILED":
            self = .untrusted("the cloud's certificate does not lead to an authority that is trusted here")
        case "SSLV3_ALERT_CERTIFICATE_REVOKED":
            self = .certificateRefused("it is revoked")
        case "SSLV3_ALERT_CERTIFICATE_EXPIRED":
            self = .certificateRefused("it has expired")
        case "TLSV1_ALERT_UNKNOWN_CA":
            self = .certificateRefused("the cloud does not know the authority that signed it")
        case "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "TLSV1_ALERT_ACCESS_DENIED", "TLSV1_ALERT_DECRYPT_ERROR":
            self = .certificateRefused("the cloud says no more than \(reason)")
        case "TLSV1_ALERT_CERTIFICATE_REQUIRED", "TLSV1_CERTIFICATE_REQUIRED":
            self = .certificateRefused("the cloud asks for one, and none is configured here")
        case "SSLV3_ALERT_HANDSHAKE_FAILURE":
            self = .insecure(
                "the cloud broke off the TLS handshake; it may ask for a client certificate, or for other ciphers"
            )
        case "TLSV1_ALERT_NO_APPLICATION_PROTOCOL":
            self = .protocolNotAgreed
        case "TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL":
            self = .insecure("the cloud speaks no version of TLS that is allowed here")
        case "TLSV1_UNRECOGNIZED_NAME", "TLSV1_ALERT_UNRECOGNIZED_NAME":
            self = .insecure("the cloud does not know the name it was asked for; see server-name")
        case "WRONG_VERSION_NUMBER", "UNEXPECTED_RECORD", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST":
            self = .insecure("what answers there does not speak TLS")
        case "EOF":
            self = .insecure("the connection was closed during the TLS handshake")
        default:
            return nil
        }
    }
}

/// Carries a loss through a channel's pipeline.
struct LinkLossError: Error {
    let loss: LinkLoss
}

/// Certificates that were shown, the cloud's first, and not trusted.
struct UntrustedChain {
    let certificates: [NIOSSLCertificate]
    let authorityFile: String?
    /// Seconds of Unix time, as this machine believes it to be.
    let now: time_t

    /// Why they were not, as far as they show it themselves.
    var words: String {
        for (n, certificate) in certificates.enumerated() {
            let whose = n == 0 ? "the cloud's certificate" : "a certificate that signed the cloud's"
            if certificate.notValidAfter < now {
                return "\(whose) expired on \(date(certificate.notValidAfter)) (here it is \(date(now)))"
            }
            if certificate.notValidBefore > now {
                return "\(whose) is valid only from \(date(certificate.notValidBefore)) on, and here it is "
                    + "\(date(now)): is the clock right?"
            }
        }
        let trusted = authorityFile.map { "in \($0)" } ?? "by this system"
        return "the cloud's certificate does not lead to an authority that is trusted \(trusted)"
    }

    private func date(_ time: time_t) -> String {
        var time = time
        var parts = tm()
        guard gmtime_r(&time, &parts) != nil else { return "\(time)" }
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
    }
}

extension NIOConnectionError {
    fileprivate var words: String {
        guard connectionErrors.isEmpty else {
            return connectionErrors.map { "\($0.target): \($0.error)" }.joined(separator: "; ")
        }
        guard let error = dnsAError ?? dnsAAAAError else { return "no answer from \(host):\(port)" }
        return "the name \(host) does not resolve (\(error))"
    }
}
