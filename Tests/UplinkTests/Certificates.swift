import Foundation
import Testing
import Workbench

@testable import Uplink

/// A certificate authority of the tests' own, made with `openssl` in a directory that ends with it: keep it for as long
/// as its files are read.
final class Certificates {
    struct Identity {
        let certificate: String
        let key: String
    }

    private let place: Workplace
    private let configuration: String
    private var made = 0

    var authorityFile: String { place.file("ca.pem") }
    var revocationFile: String { place.file("crl.pem") }

    init(_ name: String = "Test Authority") throws {
        place = try Workplace("certificates")
        configuration = try place.write(
            """
            [ca]
            default_ca = here
            [here]
            database = \(place.file("index.txt"))
            new_certs_dir = \(place.path)
            certificate = \(place.file("ca.pem"))
            private_key = \(place.file("ca.key"))
            default_md = sha256
            default_days = 30
            default_crl_days = 30
            rand_serial = yes
            unique_subject = no
            policy = any
            copy_extensions = copy
            [any]
            commonName = supplied
            [req]
            distinguished_name = name
            x509_extensions = authority
            [name]
            [authority]
            basicConstraints = critical, CA:TRUE
            keyUsage = critical, keyCertSign, cRLSign
            subjectKeyIdentifier = hash

            """, to: "openssl.cnf")
        _ = try place.write("", to: "index.txt")
        try openssl(
            "req", "-x509", "-config", configuration, "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=\(name)", "-keyout",
            place.file("ca.key"), "-out", authorityFile)
    }

    deinit { place.remove() }

    /// - Parameters:
    ///   - names: such as `DNS:localhost` or `IP:127.0.0.1`.
    ///   - hasExpired: whether it was valid in 2020 only.
    func issue(_ name: String, for names: [String] = [], hasExpired: Bool = false) throws -> Identity {
        made += 1
        let identity = Identity(
            certificate: place.file("\(made).pem"), key: place.file("\(made).key"))
        let request = place.file("\(made).csr")
        let extensions =
            names.isEmpty ? [] : ["-addext", "subjectAltName=\(names.joined(separator: ","))"]
        try openssl(
            ["req", "-new", "-config", configuration, "-newkey", "ec", "-pkeyopt"]
                + ["ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=\(name)", "-keyout", identity.key]
                + ["-out", request] + extensions)
        let period = hasExpired ? ["-startdate", "20200101000000Z", "-enddate", "20201231000000Z"] : []
        try openssl(
            [
                "ca", "-batch", "-config", configuration, "-in", request, "-out", identity.certificate,
                "-notext",
            ]
                + period)
        return identity
    }

    /// For a server on this machine.
    func issueServer(hasExpired: Bool = false) throws -> Identity {
        try issue(
            "server", for: ["DNS:localhost", "IP:127.0.0.1", "IP:::1"], hasExpired: hasExpired)
    }

    func revoke(_ identity: Identity) throws {
        try openssl("ca", "-config", configuration, "-revoke", identity.certificate)
    }

    /// Writes the same authority into a new file.
    func touchAuthority() throws {
        let copy = place.file("copy")
        try FileManager.default.copyItem(atPath: authorityFile, toPath: copy)
        try #require(rename(copy, authorityFile) == 0)
    }

    /// Writes which certificates are revoked.
    func writeRevocations() throws {
        try openssl("ca", "-config", configuration, "-gencrl", "-out", revocationFile)
    }

    /// What a listener of mosquitto's wants to hear.
    func lines(_ server: Identity, asksForCertificates: Bool = false) -> [String] {
        ["cafile \(authorityFile)", "certfile \(server.certificate)", "keyfile \(server.key)"]
            + (asksForCertificates ? ["require_certificate true"] : [])
    }

    private func openssl(_ arguments: String...) throws { try openssl(arguments) }

    private func openssl(_ arguments: [String]) throws {
        let (ending, text) = try ChildProcess.run("/usr/bin/openssl", arguments)
        try #require(ending == .exited(0), "openssl \(arguments): \(text)")
    }
}
