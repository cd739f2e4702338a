"""The SDK's setting that keeps it from reporting each train() call to an address of AWS."""

NO_TELEMETRY = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
