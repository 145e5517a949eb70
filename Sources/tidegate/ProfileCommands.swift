import ArgumentParser
import GatewayCore
import Settings

/// `tidegate profile …`: what the device profiles say, without connecting anything, and what they have done.
struct ProfileCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Says how classes of devices are treated, and what a client gets.",
        subcommands: [List.self, CheckProfiles.self, Explain.self, Use.self, Schema.self])
}

/// Which configuration is meant.
struct ConfigurationOptions: ParsableArguments {
    @Option(help: "The configuration file; /etc/tidegate/tidegate.yaml, if it is there.")
    var config: String?

    /// - Throws: the exit status; what is wrong has been said.
    func settings() throws -> Settings {
        do throws(SettingsErrors) { return try Settings.load(path: config) } catch { throw refuse(error) }
    }
}

extension ProfileCommand {
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Lists the profiles in the order in which they are tried.")

        @OptionGroup var configuration: ConfigurationOptions

        func run() throws {
            let settings = try configuration.settings()
            for each in settings.deviceProfiles {
                let order = each.order.map { "\($0)" } ?? "last"
                print("\(order)\t\(each.profile.name)\t\(each.file)")
                for match in each.profile.matches {
                    print("\t\t\(match.words(listeners: settings.listenerAddresses))")
                }
            }
            if settings.deviceProfiles.last?.profile.isDefault != true {
                print("last\tdefault\tbuilt in: as without profiles")
            }
        }
    }

    struct CheckProfiles: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check", abstract: "Says what is wrong with the profiles, and where.")

        @OptionGroup var configuration: ConfigurationOptions

        func run() throws {
            let count = try configuration.settings().deviceProfiles.count
            print("\(count) device profile\(count == 1 ? " is" : "s are") good")
        }
    }

    struct Use: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Says what each profile of the running gateway has done since it started.",
            discussion: """
                A line has the profile's name, PUBLISH packets and subscriptions that it refused, how often a client was \
                slowed down, and what report by exception kept from the uplinks; with a tab between. A profile that a \
                reload brings, or brings back, begins at 0.
                """)

        @OptionGroup var store: StoreOptions

        func run() throws { try store.ask(.profiles) }
    }

    struct Schema: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Prints a JSON Schema of the files, for editors that complete and check them.")

        func run() { print(ProfileSettings.schema, terminator: "") }
    }
}

extension ProfileCounts {
    /// For people and for `cut`.
    func line(of name: String) -> String {
        [
            name, "\(refusedPublishes) publishes refused", "\(refusedSubscriptions) subscriptions refused",
            "\(pauses) times slowed down", "\(suppressed) kept from uplinks (\(suppressedBytes) bytes)",
        ].joined(separator: "\t")
    }
}

extension DeviceMatch {
    /// In words: all of them must agree.
    func words(listeners: [String]) -> String {
        var parts: [String] = []
        if let pattern = clientIdentifier { parts.append("client identifier \(pattern)") }
        if let pattern = username { parts.append("user name \(pattern)") }
        if let pattern = certificateSubject { parts.append("certificate subject \(pattern)") }
        if let pattern = certificateIssuer { parts.append("certificate issuer \(pattern)") }
        if let listener, listeners.indices.contains(listener) {
            parts.append("listener \(listeners[listener])")
        }
        return parts.joined(separator: " and ")
    }
}
