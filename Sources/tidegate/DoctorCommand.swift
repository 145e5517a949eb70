import ArgumentParser
import GatewayCore
import NIOCore
import NIOPosix
import Settings
import Uplink

/// `tidegate doctor`: what each cloud offers, and what would be lost with this configuration.
struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Connects to every cloud as configured, and says what would be lost.",
        discussion: """
            Each address of each uplink is tried, with the configured way, names and passwords, under the client identifier \
            with "\(CloudProbe.identifierSuffix)" behind it, and so without disturbing a gateway that runs. Nothing is \
            published, so that the right to publish is not tried. The exit status is 0 when every address answers and \
            nothing would be lost silently, and 1 when not.
            """)

    @Option(help: "The configuration file; /etc/tidegate/tidegate.yaml, if it is there.")
    var config: String?

    @Option(help: "Only the uplink of this name.")
    var uplink: String?

    func run() throws {
        let checked: CheckedSettings
        do throws(SettingsErrors) {
            checked = try CheckedSettings(Settings.load(path: config))
        } catch {
            throw refuse(error)
        }
        let plans = checked.uplinks.filter { uplink == nil || $0.name == uplink }
        guard !plans.isEmpty else {
            let known = checked.uplinks.map { "\"\($0.name)\"" }.joined(separator: ", ")
            complain(
                known.isEmpty ? "no uplink is configured" : "that uplink is not configured; there is \(known)"
            )
            throw ExitCode(ExitStatus.failed.rawValue)
        }
        var isWell = true
        for plan in plans {
            print("uplink \"\(plan.name)\"")
            let routes = UplinkRoutes(plan, in: checked.settings)
            for address in plan.addresses where try !examine(plan, routes, address) { isWell = false }
        }
        if !isWell { throw ExitCode(ExitStatus.failed.rawValue) }
        print("nothing would be lost")
    }

    /// - Returns: whether it answers and nothing would be lost.
    private func examine(_ plan: UplinkPlan, _ routes: UplinkRoutes, _ address: UplinkAddress) throws -> Bool
    {
        switch try Self.probe(plan, address) {
        case .failed(let loss):
            print("  \(address): NOT CONNECTED: \(loss)")
            return false
        case .met(let connack, let subscriptions):
            let prognosis = Prognosis(plan, routes: routes, connack: connack, subscriptions: subscriptions)
            print("  \(address): connected; \(prognosis.offer.joined(separator: ", "))")
            if !address.isSecure, plan.password != nil, !address.isLoopback {
                print("    mind: the password crosses the network in clear; write: \(address.secured)")
            }
            for finding in prognosis.findings {
                let write = finding.write.map { "; write: \($0)" } ?? ""
                print("    \(finding.isLoss ? "WOULD BE LOST" : "mind"): \(finding.words)\(write)")
            }
            return !prognosis.losesMessages
        }
    }

    /// Waits for the outcome; the loop is another thread's.
    private static func probe(_ plan: UplinkPlan, _ address: UplinkAddress) throws -> CloudProbe.Outcome {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let outcome = loop.makePromise(of: CloudProbe.Outcome.self)
        loop.execute {
            CloudProbe(plan, at: address, eventLoop: loop) { outcome.succeed($0) }.start()
        }
        return try outcome.futureResult.wait()
    }
}

extension UplinkRoutes {
    fileprivate init(_ plan: UplinkPlan, in settings: Settings) {
        self =
            GatewayPlan(settings).uplinks.first { $0.name == plan.name }
            ?? UplinkRoutes(name: plan.name, out: [], in: [])
    }
}

extension UplinkAddress {
    fileprivate var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }

    fileprivate var secured: String { "\(isWebSocket ? "wss" : "mqtts")://\(host) as the address" }
}
