import NIOSSL

/// The files that secure a listener.
package struct ListenerSecurity: Hashable, Sendable {
    /// PEM: the gateway's certificate, and behind it those that lead to an authority that clients trust.
    package var certificateFile: String
    /// PEM.
    package var keyFile: String
    /// PEM: the authorities whose certificates clients may show; nil where none is asked for.
    package var clientAuthorityFile: String?
    /// Whether a client without a certificate is turned away.
    package var requiresCertificate: Bool
    /// Whether TLS 1.2 is refused.
    package var requiresTLS13: Bool

    package init(
        certificateFile: String, keyFile: String, clientAuthorityFile: String? = nil,
        requiresCertificate: Bool = false, requiresTLS13: Bool = false
    ) {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.clientAuthorityFile = clientAuthorityFile
        self.requiresCertificate = requiresCertificate
        self.requiresTLS13 = requiresTLS13
    }

    /// Reads the files; blocks for as long as that takes.
    ///
    /// - Throws: which of them cannot be used, and why.
    func context(alpn: [String]) throws(SecurityFailure) -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try Self.certificates(in: certificateFile).map { .certificate($0) },
            privateKey: .privateKey(try key()))
        configuration.minimumTLSVersion = requiresTLS13 ? .tlsv13 : .tlsv12
        configuration.applicationProtocols = alpn
        if let clientAuthorityFile {
            configuration.trustRoots = .certificates(try Self.certificates(in: clientAuthorityFile))
            // Never by host name: a device has none. Without a certificate a client is nobody, if that is allowed.
            configuration.certificateVerification =
                requiresCertificate ? .noHostnameVerification : .optionalVerification
        } else {
            configuration.certificateVerification = .none
        }
        do { return try NIOSSLContext(configuration: configuration) } catch {
            throw SecurityFailure(
                "the certificate in \(certificateFile) and the key in \(keyFile) do not belong together")
        }
    }

    private func key() throws(SecurityFailure) -> NIOSSLPrivateKey {
        do { return try NIOSSLPrivateKey(file: keyFile, format: .pem) } catch {
            throw SecurityFailure("\(keyFile) holds no private key that can be read")
        }
    }

    private static func certificates(in file: String) throws(SecurityFailure) -> [NIOSSLCertificate] {
        var found: [NIOSSLCertificate] = []
        do { found = try NIOSSLCertificate.fromPEMFile(file) } catch {
            throw SecurityFailure("\(file) holds no certificate that can be read")
        }
        guard !found.isEmpty else { throw SecurityFailure("there is no certificate in \(file)") }
        return found
    }
}

/// Why a listener's files cannot be used.
package struct SecurityFailure: Error, Hashable, CustomStringConvertible {
    package let description: String
    init(_ words: String) { description = words }
}

/// Who a client says it is, as an authority that its listener trusts has signed.
package struct PeerCertificate: Hashable, Sendable {
    /// As RFC 4514 writes them: `CN=press-12,O=Plant 7`.
    package var subject: String
    package var issuer: String
}
